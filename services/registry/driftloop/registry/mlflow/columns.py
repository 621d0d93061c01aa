"""What columns and tables of the read models have in common."""

from sqlalchemy import BigInteger, Integer

LONG = BigInteger().with_variant(Integer, "sqlite")
"""Of 64 bits; SQLite numbers rows by itself only in a column of the type INTEGER."""
PACKED = {"sqlite_with_rowid": False}
"""A table that is its primary key's tree, which is the order it is read in."""
