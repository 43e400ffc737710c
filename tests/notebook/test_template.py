"""Go templates of `--format`: the subset, and clear refusals."""

from typing import Any

import pytest

from dockmagic.errors import DockmagicError
from dockmagic.grammar.template import Template, lines, listing

CONTAINER: dict[str, Any] = {
    "Name": "/web",
    "State": {"Status": "running", "Running": True, "Pid": 7},
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"app.name": "shop"}, "Cmd": None},
    "NetworkSettings": {"Networks": {"one": {"IPAddress": "10.0.0.2"}, "two": {"IPAddress": "10.1.0.2"}}},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "/web"),
        ("{{ .State.Status }}!", "running!"),
        ("{{.State.Running}} {{.State.Pid}}", "true 7"),
        ("{{json .State}}", '{"Status":"running","Running":true,"Pid":7}'),
        ("{{.State | json}}", '{"Status":"running","Running":true,"Pid":7}'),
        ('{{index .Config.Labels "app.name"}}', "shop"),
        ("{{range .Config.Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        (
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}} {{end}}",
            "one=10.0.0.2 two=10.1.0.2 ",
        ),
        ("{{range $i, $e := .Config.Env}}{{$i}}:{{$e}},{{end}}", "0:A=1,1:B=2,"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if not .State.Running}}down{{else if .State.Pid}}up{{end}}", "up"),
        ('{{if eq .State.Status "exited" "running"}}known{{end}}', "known"),
        ("{{with .State}}{{.Pid}}/{{$.Name}}{{end}}", "7//web"),
        ('{{join .Config.Env ", "}}', "A=1, B=2"),
        ("{{upper (index .Config.Env 0)}}", "A=1"),
        ("{{len .Config.Env}}", "2"),
        ('{{printf "%s is %v" .Name .State.Status}}', "/web is running"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Cmd}}", "<no value>"),
        ("a {{- .Name -}} b", "a/webb"),
    ],
)
def test_what_is_understood(template: str, text: str) -> None:
    assert Template(template).render(CONTAINER) == text


def test_a_row_has_methods_which_its_json_has_not() -> None:
    row = {"Names": "web", "Label": {"app": "shop"}.get}
    assert Template('{{.Names}} {{.Label "app"}}').render(row) == "web shop"
    assert lines("json", [row]) == '{"Names":"web"}'
    with pytest.raises(DockmagicError, match="wrong number of args"):
        Template("{{.Label}}").render(row)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{.Name", "unclosed action"),
        ("{{range .Config.Env}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{frobnicate .Name}}", 'function "frobnicate" not defined'),
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.Name.First}}", "can't evaluate field First"),
        ("{{.Name .State}}", "can't give argument to non-function"),
    ],
)
def test_what_is_refused(template: str, why: str) -> None:
    with pytest.raises(DockmagicError) as caught:
        Template(template).render(CONTAINER)
    assert why in str(caught.value)


def test_lists() -> None:
    rows = [{"ID": "1", "Names": "web"}, {"ID": "2", "Names": "db"}]
    fields = {"CONTAINER ID": "ID", "NAMES": "Names"}
    assert listing(r"{{.ID}}\t{{.Names}}", rows, fields) == "1\tweb\n2\tdb"
    assert listing("json", rows, fields) == '{"ID":"1","Names":"web"}\n{"ID":"2","Names":"db"}'
    table = listing(r"table {{.Names}}\t{{.ID}}", rows, fields)
    assert list(table.columns) == ["NAMES", "CONTAINER ID"]
    assert table.values.tolist() == [["web", "1"], ["db", "2"]]
    assert lines("{{.ID}}", rows) == "1\n2"
