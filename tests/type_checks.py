"""The run-time type checker that the import hook in conftest puts on every function of the package.

An int passes for a float (PEP 484's numeric tower), as every static checker has it.
"""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
