"""The one style sheet of all pictures: Jupyter's own colours and fonts, so light and dark themes both work.

Every rule is below `.dm`, two classes deep where it has to win over JupyterLab's rules for rendered HTML.
Outside Jupyter the variables are not set and the fallbacks inherit from the page. Where a site removes styles
(GitHub, an untrusted notebook), the tables, captions and folds still stand on their own.
"""

STYLE = """
.dm{--dm-text:var(--jp-content-font-color1,var(--vscode-editor-foreground,inherit));
--dm-soft:var(--jp-content-font-color2,var(--vscode-descriptionForeground,#666));
--dm-line:var(--jp-border-color2,var(--vscode-panel-border,#bdbdbd80));
--dm-good:var(--jp-success-color1,#2e7d32);--dm-bad:var(--jp-error-color1,#c62828);
--dm-warn:var(--jp-warn-color0,#b45309);--dm-accent:var(--jp-content-link-color,#1565c0);
--dm-code:var(--jp-code-font-family,ui-monospace,monospace);
color:var(--dm-text);font-family:var(--jp-content-font-family,system-ui,sans-serif);
font-size:var(--jp-ui-font-size1,13px);line-height:1.45;max-width:72em;overflow-x:auto;padding:2px 0 4px;
container-type:inline-size}
.dm .dm-table{border-collapse:collapse;border:none;margin:0 0 .7em;table-layout:auto;width:auto;
font-size:inherit;color:inherit}
.dm .dm-table caption{caption-side:top;text-align:left;font-weight:600;padding:0 0 .35em;color:var(--dm-text);
white-space:nowrap}
.dm .dm-table th,.dm .dm-table td{text-align:left;vertical-align:baseline;padding:.22em 1.6em .22em 0;
font-weight:400;border:none;background:none;white-space:normal;max-width:46em;overflow-wrap:break-word}
.dm .dm-table th:last-child,.dm .dm-table td:last-child{padding-right:0}
.dm .dm-table thead th{color:var(--dm-soft);border-bottom:1px solid var(--dm-line);white-space:nowrap;
vertical-align:bottom;overflow-wrap:normal}
.dm .dm-table tbody tr,.dm .dm-table tbody tr:nth-child(odd),
.dm .dm-table tbody tr:nth-child(even){background:none}
.dm .dm-table tbody tr+tr th,.dm .dm-table tbody tr+tr td{border-top:1px solid
color-mix(in srgb,var(--dm-line) 45%,transparent)}
.dm .dm-table tbody tr:hover{background:color-mix(in srgb,var(--dm-line) 25%,transparent)}
.dm .dm-facts th{color:var(--dm-soft);white-space:nowrap}
.dm .dm-table .dm-n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.dm .dm-table td code,.dm .dm-table th code{font-family:var(--dm-code);font-size:.93em;background:none;
padding:0;color:inherit;overflow-wrap:anywhere}
.dm .dm-table .dm-empty{color:var(--dm-soft);font-style:italic}
.dm .dm-good{color:var(--dm-good)}.dm .dm-bad{color:var(--dm-bad)}.dm .dm-warn{color:var(--dm-warn)}
.dm .dm-accent{color:var(--dm-accent)}.dm .dm-muted{color:var(--dm-soft)}
.dm .dm-table td.dm-muted,.dm .dm-table .dm-whole{white-space:nowrap}
.dm .dm-bar{display:inline-block;width:4.5em;height:.5em;margin-left:.8em;vertical-align:baseline;
background:color-mix(in srgb,var(--dm-line) 40%,transparent);border-radius:1px;overflow:hidden;
text-align:left}
.dm .dm-bar i{display:block;height:100%;background:var(--dm-accent);opacity:.75}
@container (max-width:42em){.dm .dm-bar{display:none}
.dm .dm-table th,.dm .dm-table td{padding-right:.8em}}
.dm .dm-note{margin:0 0 .35em;max-width:60em;overflow-wrap:anywhere}
.dm .dm-fold{margin:0 0 .4em}
.dm>.dm-fold:last-child{margin-bottom:0}
.dm .dm-fold summary{cursor:pointer;color:var(--dm-soft)}
.dm .dm-fold.dm-bad summary{color:var(--dm-bad)}
.dm .dm-fold summary:focus-visible{outline:2px solid var(--dm-accent);outline-offset:2px}
.dm .dm-fold pre{font-family:var(--dm-code);font-size:.93em;line-height:1.4;margin:.3em 0 .6em;
padding:.1em 0 .1em .9em;border-left:2px solid var(--dm-line);white-space:pre-wrap;overflow-wrap:anywhere;
max-height:36em;overflow-y:auto;color:var(--dm-text);background:none}
.dm .dm-figure{margin:0 0 .7em}.dm .dm-figure svg{max-width:100%;height:auto;display:block}
.dm .dm-figure figcaption{color:var(--dm-soft)}
.dm .dm-map{font-size:12px}
.dm .dm-map text{fill:currentColor}.dm .dm-map .dm-soft{fill:var(--dm-soft);font-family:var(--dm-code);
font-size:11px}
.dm .dm-map rect{fill:color-mix(in srgb,var(--dm-line) 12%,transparent);stroke:var(--dm-line)}
.dm .dm-map path{fill:none;stroke:var(--dm-soft);stroke-opacity:.55}
.dm .dm-map .dm-node{outline:none}
.dm .dm-map .dm-node:hover rect,.dm .dm-map .dm-node:focus rect{stroke:var(--dm-accent);stroke-width:2}
.dm .dm-map .dm-node:hover path,.dm .dm-map .dm-node:focus path{stroke:var(--dm-accent);stroke-width:2;
stroke-opacity:1}
""".strip().replace("\n", " ")
