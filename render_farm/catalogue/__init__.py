"""The catalogue: where objects come from, and the frozen list of tasks that a run works through::

    objaverse, objaverse_xl, folder, table  ->  Entry  ->  captions  ->  scan  ->  [Task]  ->  batches (Parquet)

The two Objaverse modules need the `objaverse` package and are imported only where they are used.
"""

from render_farm.catalogue.batches import read_batch, write_batch
from render_farm.catalogue.entry import Entry

__all__ = ["Entry", "read_batch", "write_batch"]
