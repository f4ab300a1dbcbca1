"""What was decided and who used what, kept in SQLite: append-only, readable while the daemon writes.

``Ledger`` writes, from a thread of its own. ``events`` and ``spans`` read, in any process.
"""

from slurm_gov.ledger.event import Event, Kind
from slurm_gov.ledger.lately import Lately, borrowed_lately
from slurm_gov.ledger.ledger import Ledger, note
from slurm_gov.ledger.read import Recorded, events, spans
from slurm_gov.ledger.span import Span
from slurm_gov.ledger.store import DEFAULT_LEDGER, LedgerError

__all__ = [
    "DEFAULT_LEDGER",
    "Event",
    "Kind",
    "Lately",
    "Ledger",
    "LedgerError",
    "Recorded",
    "Span",
    "borrowed_lately",
    "events",
    "note",
    "spans",
]
