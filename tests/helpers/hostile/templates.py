"""Chat templates of a hostile model's folder."""

from typing import NamedTuple

TIME = "does not end within a second"
MEMORY = "needs too much memory"
TEXT = "writes more than 100,000 characters"
ENDLESS = "calls itself without an end"
FAILS = "cannot be loaded"
PLAIN = ""
"""It is rendered, to a text that shows nothing of the machine."""


class TemplateCase(NamedTuple):
    """A template, and words of the sentence that refuses it."""

    name: str
    template: str
    must: tuple[str, ...]
    """Any of these: which limit is met first hangs on the machine."""


CASES = [
    TemplateCase(
        "nested loops",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        (TIME,),
    ),
    TemplateCase("a recursive macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", (ENDLESS,)),
    TemplateCase(
        "a macro that calls itself twice",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        (TIME,),
    ),
    TemplateCase("a recursive loop", "{% for i in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", (ENDLESS,)),
    TemplateCase("a text of ten gigabytes", "{{ 'a' * 10**10 }}", (MEMORY,)),
    TemplateCase(
        "a text that doubles",
        "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        (MEMORY, TIME),
    ),
    TemplateCase("a list of billions", "{% set x = [0] * 10**9 %}", (MEMORY,)),
    TemplateCase("a number of billions of digits", "{{ 10 ** (10 ** 9) }}", (TIME, MEMORY)),
    TemplateCase("a width of billions", "{{ '%1000000000000d' % 1 }}", (MEMORY, FAILS)),
    TemplateCase("a format's width", "{{ '{:10000000000}'.format(1) }}", (MEMORY,)),
    TemplateCase("a filter's width", "{{ 'a' | center(10**10) }}", (MEMORY,)),
    TemplateCase("an indent", "{{ {'a': 1} | tojson(indent=10**10) }}", (MEMORY,)),
    TemplateCase(
        "megabytes of text",
        "{% for i in range(99999) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}",
        (TEXT,),
    ),
    TemplateCase("a wide range", "{% for i in range(10**9) %}{% endfor %}", (FAILS,)),
    TemplateCase("a deep expression", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", (FAILS, ENDLESS)),
    TemplateCase("classes", "{{ ''.__class__.__mro__[1].__subclasses__() }}", (FAILS,)),
    TemplateCase(
        "globals of a function",
        "{{ namespace.__init__.__globals__['os'].popen('touch {marker}') }}",
        (FAILS,),
    ),
    TemplateCase("globals of a macro", "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}", (FAILS, PLAIN)),
    TemplateCase(
        "the loop's own",
        "{% for i in [1] %}{{ loop.__class__.__init__.__globals__['sys'] }}{% endfor %}",
        (FAILS,),
    ),
    TemplateCase(
        "the template itself",
        "{{ self.__init__.__globals__.__builtins__.open('{marker}', 'w') }}",
        (FAILS,),
    ),
    TemplateCase("attr", "{{ ''|attr('__class__')|attr('__mro__') }}", (FAILS, PLAIN)),
    TemplateCase("map over an attribute", "{{ ['']|map(attribute='__class__.__mro__')|list }}", (FAILS, PLAIN)),
    TemplateCase(
        "a format that reaches (CVE-2016-10745)",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        (FAILS, PLAIN),
    ),
    TemplateCase(
        "format by reference (CVE-2024-56326)",
        "{{ ['{0.__class__}']|map('format', '')|list }}",
        (FAILS, PLAIN),
    ),
    TemplateCase("attr of format (CVE-2025-27516)", "{{ ('{0.__class__}'|attr('format'))('') }}", (FAILS, PLAIN)),
    TemplateCase("include", "{% include '/etc/passwd' %}", (FAILS,)),
    TemplateCase("import", "{% import 'os' as os %}{{ os.getcwd() }}", (FAILS,)),
    TemplateCase("extends", "{% extends '/etc/passwd' %}", (FAILS,)),
    TemplateCase("the environment", "{{ environ }}{{ config }}{{ request }}", (PLAIN,)),
    TemplateCase("an error of its own", "{{ raise_exception('no <b>images</b>') }}", (FAILS,)),
]
