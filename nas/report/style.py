"""How the pages look: light and dark as the reader has it, on a telephone, on a wide screen and on paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#ffffff;--ink:#1b1f24;--soft:#5b6470;--rule:#d8dde3;--panel:#f6f8fa;
--accent:#0b62a8;--good:#00734f;--bad:#b34700}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6e9ed;--soft:#9aa4b0;--rule:#333b45;--panel:#1c2229;
--accent:#6cb6f0;--good:#4fd0a0;--bad:#f0965a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:1360px;margin:0 auto;padding:1.2rem 1rem 4rem}
header h1{font-size:1.35rem;line-height:1.35;margin:.2rem 0 .4rem}
header p{margin:.2rem 0;color:var(--soft)}
h2{font-size:1.15rem;margin:2.4rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{max-width:70ch;margin:.4rem 0}
.note{color:var(--soft)}
nav{display:flex;flex-wrap:wrap;gap:.2rem .9rem;margin:.8rem 0;font-size:.9rem}
a{color:var(--accent)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86em}
pre{background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:.6rem .8rem;overflow-x:auto;
margin:.3rem 0}
pre.wrap{white-space:pre-wrap;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,11rem),1fr));gap:.6rem;margin:1rem 0}
.facts div{background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:.5rem .7rem}
.facts b{display:block;font-size:1.15rem;overflow-wrap:anywhere}
.facts span{color:var(--soft);font-size:.85rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,23rem),1fr));gap:1rem 1.4rem;margin:.8rem 0}
.small.grid{grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr))}
.wide.grid{grid-template-columns:repeat(auto-fill,minmax(min(100%,38rem),1fr))}
figure{margin:0;min-width:0;break-inside:avoid}
figcaption{font-weight:600;font-size:.92rem;overflow-wrap:anywhere}
svg.chart{width:100%;height:auto;display:block;max-width:34rem}
.chart .grid{stroke:var(--rule);stroke-width:1}
.chart .axis{stroke:var(--soft);stroke-width:1}
.chart text{fill:var(--soft);font-size:11px;font-family:inherit}
.chart .line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.chart .line.dashed{stroke-dasharray:5 3}
.chart .dot{fill:var(--c)}.chart .dots{fill:var(--c);fill-opacity:.8}
.chart .area{fill:var(--c);stroke:var(--paper);stroke-width:.6}
.chart .mark line{stroke:var(--bad);stroke-width:1;stroke-dasharray:3 3}
.chart .mark path{fill:var(--bad)}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.84rem;color:var(--soft);margin:.15rem 0}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;background:var(--c);margin-right:.35em;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.key.mark i{background:var(--bad);clip-path:polygon(0 0,100% 0,50% 100%);border-radius:0}
.key.dashed i{height:.25em;vertical-align:middle}
.drawings{overflow-x:auto;margin:.6rem 0}
svg.drawing{max-width:100%;height:auto;min-width:min(100%,560px);display:block}
.cells svg.drawing{min-width:560px}
svg.drawing text{fill:var(--ink)}
.narrow{display:none}
.tables{overflow-x:auto;margin:.6rem 0;background:
linear-gradient(90deg,var(--paper) 40%,transparent) left/2rem 100% no-repeat local,
linear-gradient(270deg,var(--paper) 40%,transparent) right/2rem 100% no-repeat local,
linear-gradient(90deg,var(--soft),transparent) left/.45rem 100% no-repeat scroll,
linear-gradient(270deg,var(--soft),transparent) right/.45rem 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.9rem}
th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
wbr{display:none}
th{color:var(--soft);font-weight:600}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
td.number{white-space:nowrap}th.number{vertical-align:bottom}
td.wide{overflow-wrap:anywhere;min-width:9rem}
td .bar{display:inline-block;height:.6rem;background:var(--accent);border-radius:2px;vertical-align:middle;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.good{color:var(--good)}.bad{color:var(--bad)}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--accent)}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media (max-width:640px){.narrow{display:block}.broad{display:none}main{padding:.8rem .8rem 3rem}h1{font-size:1.15rem}
svg.drawing{min-width:0}.narrow svg.drawing{width:100%!important;max-width:26rem}
table{font-size:.82rem}th,td{padding-right:.5rem}td .bar{display:none}wbr{display:inline}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--rule:#ccc;--panel:#fff;
--accent:#0b62a8;--good:#00734f;--bad:#b34700}
body{font-size:10.5pt}main{max-width:none;padding:0}nav,summary{display:none}h2{break-after:avoid}
.grid{grid-template-columns:repeat(2,1fr)}.small.grid{grid-template-columns:repeat(3,1fr)}
pre{white-space:pre-wrap;overflow-wrap:anywhere}.tables,.drawings{overflow:visible;background:none}tr{break-inside:avoid}
.cells svg.drawing{min-width:0}}
"""
