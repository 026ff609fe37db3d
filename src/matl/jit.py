"""How loops are compiled. Imported only by the modules of compiled loops, whose names begin with an underscore.

Importing it imports numba, which takes a while: what needs such a module imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(kernel: _Kernel, **options: Any) -> _Kernel:
    """Compile at the first call, and keep the machine code beside the source or in the user's cache.

    Kernels hold no lock, write only what they were handed, and do IEEE arithmetic in a fixed order unless an option
    says otherwise: what they compute from the same bits has the same bits.
    """
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return cast(_Kernel, numba.njit(cache=True, **options)(kernel))
    except RuntimeError:  # neither place can be written, as in a read-only container: compile in every process
        return cast(_Kernel, numba.njit(**options)(kernel))
