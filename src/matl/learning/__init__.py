"""What is learned, from which data, and how clients and server train: tasks, data sets, partitions, optimisers."""
