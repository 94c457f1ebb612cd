"""The look of the page: one inline style sheet, light and dark, readable from a phone to a printed page.

Turquoise stands for Persian, saffron for English, pomegranate for what was spent, everywhere on the page.
"""

CSS = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#ffffff;--ink:#1d2126;--soft:#626a73;--rule:#e4e1d9;
--fa:#0b7f83;--en:#b8720a;--spent:#a8324a;--third:#5b6bb5;--good:#1f7a45;--bad:#b3352b;--tint:#e9f3f2;
--warn:#fbf1dc}
@media(prefers-color-scheme:dark){:root{--paper:#121519;--card:#1a1e24;--ink:#e9e7e1;--soft:#9aa3ad;
--rule:#2d333b;
--fa:#41c0c0;--en:#eaa83f;--spent:#ef7a90;--third:#93a3ee;--good:#63c98b;--bad:#f2847a;--tint:#16292b;
--warn:#2c2618}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Noto Naskh Arabic",Vazirmatn,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
header{border-bottom:1px solid var(--rule);padding-bottom:20px;margin-bottom:24px}
.kicker{color:var(--fa);font-size:13px;font-weight:650;letter-spacing:.08em;text-transform:uppercase;
margin:0 0 6px}
h1{font-size:clamp(26px,5vw,38px);line-height:1.15;margin:0;letter-spacing:-.02em;overflow-wrap:anywhere}
.sub{color:var(--soft);margin:8px 0 0}
h2{font-size:23px;letter-spacing:-.01em;margin:0 0 4px}
h3{font-size:14px;font-weight:650;margin:0 0 10px}
section{margin:46px 0 0}
.lead{color:var(--soft);margin:0 0 18px;max-width:68ch}
.note{color:var(--soft);font-size:13.5px;margin:10px 0 0}
.state{display:inline-block;border-radius:99px;padding:1px 11px;font-size:13px;font-weight:600;
margin-right:8px;
background:var(--tint);color:var(--fa)}.state.open{background:var(--warn);color:var(--en)}
nav{display:flex;gap:6px 18px;margin-top:16px;font-size:14px;overflow-x:auto;white-space:nowrap}
nav a{color:var(--soft);text-decoration:none}nav a:hover{color:var(--ink);text-decoration:underline}
.hero{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:16px}
.card,.panel{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:18px 20px;
min-width:0}
.card.c-fa{--edge:var(--fa)}.card.c-en{--edge:var(--en)}.card.c-spent{--edge:var(--spent)}
.card h3{color:var(--soft);font-weight:600;margin:0}
.card .big{font-size:clamp(30px,4.6vw,42px);font-weight:680;letter-spacing:-.03em;line-height:1.15;
margin:6px 0 2px;
color:var(--edge);font-variant-numeric:tabular-nums}
.card p{margin:0;color:var(--soft);font-size:14.5px}.card .verdict{color:var(--ink);font-weight:600}
.grid2{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}.wide{grid-column:1/-1}
section>.panel,section>.scroll,section>.grid2{margin-top:16px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14.5px}
th,td{padding:8px 12px 8px 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
td{font-variant-numeric:tabular-nums}tbody th{font-weight:600}
thead th{font-size:12.5px;color:var(--soft);font-weight:600;vertical-align:bottom;white-space:nowrap}
table.num td,table.num thead th:not(:first-child){text-align:right}table.num td{white-space:nowrap}
table.num th:last-child,table.num td:last-child{padding-right:0}
tbody tr:last-child th,tbody tr:last-child td{border-bottom:0}
.n{font-variant-numeric:tabular-nums;white-space:nowrap}.unit{color:var(--soft);font-size:.85em;
margin-left:.3em}
.origin{display:block;color:var(--soft);font-weight:400;font-size:12.5px}
.gap{color:var(--soft)}.up{color:var(--bad)}.down{color:var(--good)}.flat{color:var(--soft)}
.delta{font-size:13px;margin-left:.45em}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:14px 24px;margin:0}
.facts dt{color:var(--soft);font-size:13px}.facts dd{margin:0;font-weight:560;overflow-wrap:anywhere}
.on-phone{display:none}
svg{display:block;width:100%;height:auto;overflow:visible}svg text{font-size:12px;fill:var(--soft)}
.grid{stroke:var(--rule)}.grid.zero{stroke:var(--soft)}.mark{stroke:var(--soft);stroke-dasharray:2 4;
opacity:.7}.mark-label{font-size:11px}
.line{fill:none;stroke:var(--tone);stroke-width:2;stroke-linejoin:round}.line.quiet{opacity:.3;
stroke-width:1}
.dot{fill:var(--card);stroke:var(--tone);stroke-width:2.5}.area{fill:var(--tone);opacity:.75}
.t-fa{--tone:var(--fa)}.t-en{--tone:var(--en)}.t-spent{--tone:var(--spent)}.t-third{--tone:var(--third)}
.t-soft{--tone:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft);margin-top:6px}
.key{display:inline-block;width:11px;height:11px;border-radius:3px;background:var(--tone);margin-right:6px}
.key.quiet{opacity:.35}
.bars{display:grid;gap:7px}
.bar{display:grid;grid-template-columns:minmax(80px,150px) 1fr minmax(76px,auto);gap:12px;
align-items:center;
font-size:14px}
.bar-name{overflow-wrap:anywhere}.bar-value{text-align:right;font-variant-numeric:tabular-nums;
color:var(--soft)}
.track{height:14px;border-radius:4px;background:color-mix(in srgb,var(--rule) 55%,transparent)}
.fill{display:block;height:100%;border-radius:4px;overflow:hidden;min-width:2px;
background:repeating-linear-gradient(
45deg,var(--spent) 0 2px,color-mix(in srgb,var(--spent) 28%,transparent) 2px 6px)}
.solid{display:block;height:100%;background:var(--spent)}
.fa{font-family:"Noto Naskh Arabic",Vazirmatn,"Segoe UI","Geeza Pro","DejaVu Sans",sans-serif;
unicode-bidi:plaintext}
.sample{border-inline-start:3px solid var(--fa);padding:2px 14px;margin:0 0 8px;font-size:18px;
line-height:1.95;
display:block;white-space:pre-wrap;overflow-wrap:anywhere}
.sample.prompt{border-color:var(--rule);color:var(--soft);font-size:16px}
.samples{display:grid;gap:16px}.turn{display:grid;grid-template-columns:110px minmax(0,1fr);gap:14px;
align-items:baseline}.turn h3{color:var(--soft);font-weight:600;margin:0;overflow-wrap:anywhere}
.chips{display:flex;flex-wrap:wrap;gap:8px;margin:0;padding:0;list-style:none}
.chips li{background:var(--tint);border-radius:8px;padding:2px 10px 3px;display:flex;gap:8px;
align-items:baseline}
.chips .fa{font-size:17px}.chips small{color:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
pre{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 14px;
margin:6px 0 14px;
overflow-x:auto;font:13.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.gaps{background:var(--warn);border-radius:12px;padding:14px 20px;margin-top:16px}
.gaps h3{margin:0 0 4px}.gaps ul{margin:0;padding-left:18px;font-size:14.5px}
ul.plain{margin:0;padding-left:18px;color:var(--soft);font-size:14.5px}
footer{margin-top:56px;border-top:1px solid var(--rule);padding-top:14px;color:var(--soft);font-size:13.5px}
@media(max-width:760px){.hero,.grid2{grid-template-columns:minmax(0,1fr)}main{padding:20px 16px 48px}
.bar{grid-template-columns:112px 1fr minmax(68px,auto);gap:8px}
.turn{grid-template-columns:minmax(0,1fr);gap:2px}
.on-wide{display:none}.on-phone{display:block}section{margin-top:38px}}
@media print{nav{display:none}.card,.panel{break-inside:avoid}body{background:#fff}}
"""
