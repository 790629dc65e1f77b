"""Pages for a browser that hold everything themselves: no other file, no network.

One style sheet for light and dark, for telephones and for paper; plots of matplotlib as inline
SVG that takes its colours from the page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

# what plots are drawn with -> variables of the page, so that one picture is light and dark
INK, PAPER = "#0b0c0d", "#fdfdfc"
_VARIABLES = {
    INK: "var(--ink)", PAPER: "var(--paper)", "#000000": "var(--ink)", "#4d4d4d": "var(--soft)",
    "#0072b2": "var(--blue)", "#d55e00": "var(--red)", "#009e73": "var(--green)",
    "#cc79a7": "var(--pink)", "#e69f00": "var(--orange)", "#56b4e9": "var(--sky)",
    "#f0e442": "var(--yellow)",
}
_LIGHT = (
    "--ink:#1c1e21;--soft:#545a61;--paper:#fff;--card:#f5f6f8;--line:#d9dce0;--link:#0b57a4;"
    "--bad:#b3261e;--blue:#0072b2;--red:#d55e00;--green:#009e73;--pink:#cc79a7;--orange:#e69f00;"
    "--sky:#56b4e9;--yellow:#f0e442"
)
_DARK = (
    "--ink:#e6e8ea;--soft:#a8aeb5;--paper:#16181b;--card:#1e2125;--line:#3a3f45;--link:#8ec5ff;"
    "--bad:#ff8a80;--blue:#5cb3e6;--red:#f29a4a;--green:#3fc49a;--pink:#dd9bbd;--orange:#f0b73d;"
    "--sky:#2c6f97;--yellow:#d8ce46"
)
_STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_DARK}}}}}
@media screen{{:root[data-theme=light]{{color-scheme:light}}
:root[data-theme=dark]{{color-scheme:dark;{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1rem;max-width:64rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:break-word}}
a{{color:var(--link)}}:focus-visible{{outline:3px solid var(--link);outline-offset:2px}}
h1{{font-size:1.5rem;line-height:1.25;margin:.5rem 0}}
h2{{font-size:1.2rem;line-height:1.3;margin:2.5rem 0 .5rem}}
h3{{font-size:1rem;margin:1.5rem 0 .25rem}}
p{{margin:.4rem 0;max-width:46rem}}li{{max-width:46rem}}
.soft,figcaption,caption{{color:var(--soft)}}.bad{{color:var(--bad);font-weight:600}}
.lead{{font-size:1.15rem;background:var(--card);border-left:4px solid var(--blue);
padding:.6rem .9rem;max-width:56rem}}
.skip{{position:absolute;left:-99rem}}.skip:focus{{left:1rem;top:.5rem;background:var(--paper)}}
nav ul{{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;margin:.5rem 0;padding:0}}
.wide{{overflow-x:auto;margin:.5rem 0}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
caption{{text-align:left;padding-bottom:.25rem}}
th,td{{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap;font-weight:400}}
thead th{{font-weight:600;vertical-align:bottom;white-space:normal}}
th:first-child,td:first-child{{text-align:left}}
.prose th,.prose td{{white-space:normal;text-align:left}}
.prose td{{min-width:8rem;overflow-wrap:anywhere}}
.beside{{display:grid;gap:0 2.5rem;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,34rem),1fr))}}
.beside>*{{min-width:0}}
.plots{{display:grid;gap:1rem;align-items:end;
grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),22rem))}}
figure{{margin:.75rem 0;max-width:46rem}}
.plots>figure,figure:has(.plots){{max-width:none}}
figcaption{{font-size:.9rem;max-width:46rem}}
svg{{width:100%;height:auto;display:block;fill:var(--ink)}}svg image{{image-rendering:pixelated}}
.narrow{{display:none}}
figure.large{{position:fixed;inset:0;z-index:9;margin:0;padding:1rem;overflow:auto;
max-width:none;background:var(--paper)}}
figure.large svg{{min-width:60rem;max-width:none!important}}figure.large .plots{{display:block}}
button,select{{font:inherit;font-size:.85rem;color:inherit;background:var(--card);
border:1px solid var(--soft);border-radius:4px;padding:.1rem .5rem;cursor:pointer}}
code,pre{{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}}
pre{{overflow-x:auto;white-space:pre;overflow-wrap:normal;background:var(--card);padding:.6rem}}
summary{{cursor:pointer;color:var(--link)}}
@media screen and (max-width:40rem){{
figure:not(.large) .roomy{{display:none}}figure:not(.large) .narrow{{display:block}}
th,td{{padding-right:.6rem}}th:first-child,td:first-child{{white-space:normal}}
pre{{white-space:pre-wrap;overflow-wrap:anywhere}}
.many,.many tbody,.many td,.many th{{display:block}}
.many thead{{position:absolute;left:-99rem}}
.many tr{{display:grid;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));
padding:.3rem 0;border-bottom:1px solid var(--line)}}
.many tbody th{{grid-column:1/-1;font-weight:600}}.many th,.many td{{border:0;padding-bottom:0}}
.many td,.many caption{{display:block;text-align:left;white-space:normal}}
.many td::before{{content:attr(data-head);display:block;font-size:.8rem;color:var(--soft)}}
.many.prose tr{{display:block}}
}}
@media screen and (min-width:80rem){{
body.split{{max-width:112rem;display:grid;grid-template-columns:13rem minmax(0,1fr);
column-gap:2.5rem;align-items:start}}
.split>header{{grid-column:1/-1}}.split>nav{{position:sticky;top:1rem}}
.split>nav ul{{flex-direction:column}}
}}
@page{{size:A4;margin:15mm}}
@media print{{
:root{{color-scheme:light}}
body{{font-size:10.5pt;padding:0;max-width:none}}
.skip,nav,button,select,.theme,details:not([open]){{display:none}}
h1,h2,h3,caption,.before{{break-after:avoid}}figure,.wide,tr,.lead{{break-inside:avoid}}
svg{{max-height:100mm}}.plots svg{{max-height:70mm}}.beside{{display:block}}
.plots{{grid-template-columns:1fr 1fr}}
.wide,pre{{overflow:visible}}th,td{{padding-right:.5rem}}table{{font-size:8.5pt}}
pre{{white-space:pre-wrap;overflow-wrap:anywhere}}
}}
"""
_LARGEST = 1.25  # times its own size that a plot is shown: letters like those around it
_NARROW_LETTERS = 40  # of a telephone's line
# a theme that is chosen, and figures that are looked at closely; the page says all without it
_SCRIPT = """
const root=document.documentElement,choice=document.getElementById('theme');
if(choice)choice.addEventListener('change',()=>{
if(choice.value)root.dataset.theme=choice.value;else delete root.dataset.theme});
function close(figure){figure.classList.remove('large');const b=figure.querySelector('button');
b.textContent='Enlarge';b.setAttribute('aria-expanded','false');b.focus()}
document.querySelectorAll('figure button').forEach(b=>{b.hidden=false;
b.addEventListener('click',()=>{const f=b.closest('figure');
if(f.classList.contains('large'))return close(f);
f.classList.add('large');b.textContent='Close';b.setAttribute('aria-expanded','true')})});
// what does not scroll needs no stop for the keyboard
const stops=document.querySelectorAll('[tabindex="0"]');
function stop(){stops.forEach(e=>{e.tabIndex=e.scrollWidth>e.clientWidth?0:-1})}
addEventListener('resize',stop);stop();
document.addEventListener('keydown',e=>{const f=document.querySelector('figure.large');
if(f&&e.key==='Escape')close(f)});
"""


def text(words: object) -> str:
    """Return words safe to stand in a page.

    Examples
    --------
    >>> text("a < b")
    'a &lt; b'
    """
    return html.escape(str(words))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, prose: bool = False
) -> str:
    """Return a table that scrolls by itself where it is too wide; first cells name the rows.

    On a telephone a table of many columns becomes a block a row, where every cell has its head
    before it. head : the first may be empty, where rows need no word for what they are.
    prose : its cells are sentences, which wrap. Texts are escaped here.
    """
    rows = list(rows)
    # blocks are no table to a browser unless they say so
    many = len(head) > 2 if prose else _letters(head, rows) > _NARROW_LETTERS
    part, cell, line, col, row = (
        (f' role="{role}"' if many else "")
        for role in ("rowgroup", "cell", "row", "columnheader", "rowheader")
    )
    top = "".join(
        f'<th scope="col"{col}>{text(name)}</th>' if name else f"<td{cell}></td>" for name in head
    )
    lines = []
    for first, *others in rows:
        cells = "".join(
            f'<td{cell} data-head="{text(name)}">{text(value)}</td>' if many
            else f"<td>{text(value)}</td>" for name, value in zip(head[1:], others, strict=True)
        )
        lines.append(f'<tr{line}><th scope="row"{row}>{text(first)}</th>{cells}</tr>')
    named = f"<caption>{text(caption)}</caption>" if caption else ""
    label = text(caption or "table: " + ", ".join(filter(None, head)))
    kinds = " ".join(name for name, on in (("prose", prose), ("many", many)) if on)
    kind = (f' class="{kinds}"' if kinds else "") + (' role="table"' if many else "")
    return (
        f'<div class="wide" role="group" tabindex="0" aria-label="{label}"><table{kind}>{named}'
        f"<thead{part}><tr{line}>{top}</tr></thead><tbody{part}>{''.join(lines)}</tbody></table>"
        "</div>"
    )


def _letters(head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return how many letters a line of a table takes where heads and first cells wrap."""
    first = max((len(word) for row in rows for word in row[0].split()), default=0)
    wide = [max((len(word) for word in name.split()), default=0) for name in head]
    cells = [max((len(row[k]) for row in rows), default=0) for k in range(1, len(head))]
    return sum(1 + max(pair) for pair in zip(wide, [first, *cells], strict=True))


def beside(*parts: str) -> str:
    """Return parts that stand beside each other where there is room, else below each other."""
    inside = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div class="beside">{inside}</div>'


def figure(svg: str, name: str, alt: str, caption: str = "", *, narrow: str = "") -> str:
    """Return a plot of `plotting.to_svg` with what it says in words.

    name : of the figure, one a page. alt : what a reader who cannot see it must know.
    narrow : the same plot drawn for a telephone, shown there alone. Texts are escaped here.
    """
    drawn = inline(svg, f"{name}-", alt)
    if narrow:
        other = inline(narrow, f"{name}-n-", alt)
        drawn = f'<div class="roomy">{drawn}</div><div class="narrow">{other}</div>'
    return _framed(drawn, name, caption)


def panels(drawn: Sequence[tuple[str, str]], name: str, caption: str) -> str:
    """Return several plots, (SVG, what it says), beside each other as one figure."""
    svgs = (inline(svg, f"{name}-{k}-", alt) for k, (svg, alt) in enumerate(drawn))
    return _framed(f'<div class="plots">{"".join(svgs)}</div>', name, caption)


def _framed(drawn: str, name: str, caption: str) -> str:
    said = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    button = '<button type="button" aria-expanded="false" hidden>Enlarge</button>'
    return f'<figure id="{name}">{drawn}{said}{button}</figure>'


def inline(svg: str, prefix: str, alt: str) -> str:
    """Return an SVG fit to stand beside others in a page: ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    head, body = svg.split(">", 1)
    size = re.search(r'width="([\d.]+)pt"', head)
    # no names of schemas, which look like addresses, and a size that is the page's to choose
    head = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    head += f' role="img" aria-label="{text(alt)}"'
    if size:
        head += f' style="max-width:{_LARGEST * float(size[1]):.0f}pt"'
    for colour, variable in _VARIABLES.items():
        body = re.sub(colour, variable, body, flags=re.IGNORECASE)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body)
    return f"{head}>{body}"


def details(summary: str, body: str) -> str:
    """Return a body that opens under its summary; on paper it is left out unless it is open."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def section(name: str, title: str, *parts: str) -> str:
    """Return a section under a heading; the contents lead to its name."""
    inside = "\n".join(filter(None, parts))
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{text(title)}</h2>\n{inside}</section>'
    )


def document(title: str, body: str, contents: Sequence[tuple[str, str]] = ()) -> str:
    """Return the whole page. contents : name and title of every section, for the list of them."""
    hashed = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    # a browser that keeps to this loads nothing that is not in the page
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{hashed}'"
    )
    links = "".join(f'<li><a href="#{name}">{text(said)}</a></li>' for name, said in contents)
    listed = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if contents else ""
    kind = ' class="split"' if contents else ""
    theme = (
        '<p class="theme soft"><label for="theme">Colours </label><select id="theme">'
        '<option value="">as the system</option><option value="light">light</option>'
        '<option value="dark">dark</option></select></p>'
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style></head>\n<body{kind}>\n"
        f'<a class="skip" href="#main">To the results</a>\n<header><h1>{text(title)}</h1>{theme}'
        f'</header>\n{listed}<main id="main">\n{body}\n</main>\n'
        f"<script>{_SCRIPT}</script>\n</body></html>\n"
    )
