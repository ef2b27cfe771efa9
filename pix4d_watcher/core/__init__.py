"""The words and rules of the program: pure values, no input or output, no threads."""
