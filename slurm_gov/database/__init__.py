"""Where things are kept: an SQLite file, or a database that several controllers share. SQLAlchemy Core beneath.

A database is named by a path (SQLite) or by a URL (MariaDB, PostgreSQL). ``Database`` opens it, makes its tables
or brings them up to date, and gives transactions.
"""

from slurm_gov.database.database import Database, DatabaseError
from slurm_gov.database.part import INNODB, Part, id_column, text_column
from slurm_gov.database.put import put
from slurm_gov.database.where import Where, WhereError, exists, locate, shown

__all__ = [
    "INNODB",
    "Database",
    "DatabaseError",
    "Part",
    "Where",
    "WhereError",
    "exists",
    "id_column",
    "locate",
    "put",
    "shown",
    "text_column",
]
