"""Data sets by name or path, and the record that holds one.

A data set that is not bundled is looked for in ``$MATL_DATA_DIR``, then in the user's cache folder, and is otherwise
downloaded once through scikit-learn. Files are checked before they are used. Nothing is ever unpickled.
"""

from matl.learning.datasets.arrays import as_source, npz, sklearn_loader, synthetic
from matl.learning.datasets.cifar import cifar10
from matl.learning.datasets.files import cache_directory
from matl.learning.datasets.images import digits, idx, mnist
from matl.learning.datasets.record import DATASETS, Dataset, Source, load_dataset
from matl.learning.datasets.schema import Column, Schema, Table
from matl.learning.datasets.tables import csv_file, infer_schema, parquet_file, read_csv, read_parquet
from matl.learning.datasets.uci import adult, credit_default

__all__ = [
    "DATASETS",
    "Column",
    "Dataset",
    "Schema",
    "Source",
    "Table",
    "adult",
    "as_source",
    "cache_directory",
    "cifar10",
    "credit_default",
    "csv_file",
    "digits",
    "idx",
    "infer_schema",
    "load_dataset",
    "mnist",
    "npz",
    "parquet_file",
    "read_csv",
    "read_parquet",
    "sklearn_loader",
    "synthetic",
]
