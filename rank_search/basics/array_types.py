"""Arrays in annotations with their shapes: `Float[Tensor, "out in"]` is a matrix of floating-point numbers.

Written as in jaxtyping (docs.kidger.site/jaxtyping): equal names are equal sizes within one signature, but for names
that begin with `_`, which are any size; `...` is any number of dimensions; a single name has a space before it
(`" n"`), so that linters do not take it for a type. Type checkers see the array's type alone. At run time these are
plain annotations that nothing looks at, so that nobody needs jaxtyping but the tests, which put its types in their
place and check every call (`tests/shapes.py`).
"""

from __future__ import annotations

from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Int

__all__ = ["Bool", "Float", "Int"]
