"""What lies in a drop directory: which folders, whether they are complete, what each image is, and which key it gets.

Reads drop directories and never writes into them; knows neither the journal, nor the cloud, nor the network.
"""
