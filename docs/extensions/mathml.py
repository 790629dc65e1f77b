"""Equations as MathML, which browsers draw by themselves: no script, no font from elsewhere.

docutils holds the converter; Sphinx leaves equations to a script of another host.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _write(self: Any, node: nodes.Node, *, as_block: bool) -> None:
    try:
        text = tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("equation not understood: %s", error, location=node)
        text = f"<code>{self.encode(node.astext())}</code>"
    self.body.append(f'<div class="math">{text}</div>\n' if as_block else text)
    raise nodes.SkipNode


def _visit_math(self: Any, node: nodes.Node) -> None:
    _write(self, node, as_block=False)


def _visit_block(self: Any, node: nodes.Node) -> None:
    _write(self, node, as_block=True)


def setup(app: Any) -> dict[str, bool]:
    """Register the writer of equations in place of Sphinx's."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
