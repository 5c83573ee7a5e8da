"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import PIL.Image

from .account import how, what_was_done
from .findings import headline
from .sections import alarm, box, cases, facts, faithfulness, maps, masking, place_and_time, reading

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f6f8;--ink:#1b1d22;--faint:#5b616b;--line:#dfe2e7;--mark:#0b5cad;
--best:#dcecfb;--bar:#0072b2;--bad:#a4161a;--badcard:#fdeceb}
@media(prefers-color-scheme:dark){:root{--paper:#14161a;--card:#1e2127;--ink:#e7e9ed;--faint:#a2a8b3;--line:#353a43;
--mark:#8cc4ff;--best:#173a5c;--bar:#56b4e9;--bad:#ffb3ab;--badcard:#45191a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .4em;letter-spacing:-.015em;text-wrap:balance}
h2{font-size:1.4rem;line-height:1.3;margin:2.4em 0 .5em;letter-spacing:-.01em}
h3{font-size:1.05rem;margin:1.8em 0 .4em}
p,ul,ol,dl{max-width:46rem;margin:.6em 0}li{margin:.35em 0}
.lead{font-size:1.1rem;color:var(--faint)}.small{font-size:.87rem;color:var(--faint)}
.box{background:var(--card);border-left:4px solid var(--mark);border-radius:4px 10px 10px 4px;padding:.9em 1.2em;
margin:1.6em 0}
.box h2{margin:0 0 .2em;font-size:1.1rem}.box ul{margin:.2em 0;padding-left:1.15em;max-width:none}
.box p{max-width:none;margin:.2em 0}
.warning{background:var(--badcard);border-color:var(--bad)}.warning strong{color:var(--bad)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:1.6em 0;max-width:none}
.facts div{background:var(--card);border-radius:10px;padding:.7em .9em;display:flex;flex-direction:column;
justify-content:space-between}
.facts dt{font-size:.82rem;line-height:1.35;color:var(--faint)}
.facts dd{margin:0;font-size:1.35rem;font-weight:650;line-height:1.3;overflow-wrap:anywhere}
figure{margin:1.2em 0}figcaption{margin-top:.5em;max-width:46rem;font-size:.92rem;color:var(--faint)}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
summary{cursor:pointer;color:var(--mark);padding:.4em 0}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
figure .scroll{background:#fff;border:1px solid var(--line);border-radius:10px}
img{display:block;max-width:100%;height:auto;margin:0 auto}
table{border-collapse:collapse;font-size:.93rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;font-weight:650;padding:.4em 0}
th,td{padding:.45em .75em;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--line);font-size:.87rem;line-height:1.35;vertical-align:bottom}
tbody th{font-weight:500;position:sticky;left:0;background:var(--paper);min-width:8rem}
td small{display:block;color:var(--faint);font-size:.8rem;line-height:1.3;white-space:nowrap}
td.best{background:var(--best)}td.best b::after{content:" \\2605";color:var(--mark);font-size:.8em}
tr.yardstick th,tr.yardstick td{color:var(--faint);font-style:italic}
.badge{display:block;color:var(--mark);font-weight:500;font-size:.78rem;white-space:nowrap}
.bars{min-width:0;width:100%;max-width:34rem}
.bars td,.bars th{padding:.25em .6em .25em 0;border:0;vertical-align:middle}
.bars tbody th{min-width:0;width:7.5rem;white-space:nowrap}.bars td:last-child{width:4rem;text-align:right}
.bar{display:block;height:.85em;border-radius:3px;background:var(--bar);min-width:2px}
pre,code{font:.9rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border-radius:8px;padding:.8em 1em;white-space:pre-wrap;overflow-wrap:anywhere}
.plain th{font-weight:500;color:var(--faint);white-space:nowrap}.plain td{overflow-wrap:anywhere}.plain{min-width:0}
.plain tbody th{min-width:0}.hint{display:none}
@media(max-width:700px){body{font-size:16px}main{padding:24px 16px 48px}h1{font-size:1.65rem}
.facts{grid-template-columns:1fr 1fr}.wide img{max-width:none}.hint{display:block}th,td{padding:.45em .55em}
tbody th{min-width:6.5rem;max-width:9rem}.plain tbody th{white-space:normal;min-width:9rem}}
@media(min-width:480px){h3+.hint{display:none}}
@media print{:root{--paper:#fff;--card:#f5f6f8;--ink:#000;--faint:#444;--line:#ccc;--mark:#0b5cad;--best:#dcecfb;
--bar:#0072b2;--bad:#a4161a;--badcard:#fdeceb}body{font-size:10.5pt}main{padding:0;max-width:none}
.scroll{overflow:visible}.wide img{max-width:100%}.hint{display:none}tbody th{position:static}
figure,tr,.box,.facts div,article{break-inside:avoid}h2,h3,caption{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
# Nothing is fetched, whatever a label may hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(path, results: Mapping, pictures: Mapping[str, PIL.Image.Image] | None = None) -> Path:
    """Where the page was written: one HTML file with its pictures inside, which makes no request.

    Args:
        results: a dict as JSON knows it; see the demo's `metrics.json`. Its optional "definitions" replace what is
            said of a measure.
        pictures: "overlays", "curves" and those under other references ("curves, blur"), "success" and "failure": those
            that are there.
    """
    pictures = pictures or {}
    title = "Which pixels made the classifier say that?"
    parts = [
        f"<h1>{title}</h1>",
        '<p class="lead">An explainer was trained for one image classifier, and its maps were measured beside those of '
        "other methods. This page says what was done, what came out, and how far it can be trusted.</p>",
        alarm(results),
        box("What came out", headline(results)),
        facts(results),
        what_was_done(results),
        maps(results, pictures),
        faithfulness(results, pictures),
        place_and_time(results),
        masking(results),
        cases(results, pictures),
        reading(results),
        how(results),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>hf-explain: {title}</title>\n<style>{STYLE}</style>\n</head>\n'
        "<body>\n<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
