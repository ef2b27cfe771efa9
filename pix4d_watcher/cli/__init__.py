"""The command line: what people type and read. It shows and passes on; every decision is made elsewhere."""
