# Every verb a person needs here; `just` alone lists them. CI calls the same recipes.
# `just` itself comes from the package rust-just: .venv/bin/just after the first `./dumont up`.

# Tools come from .venv-check when it exists (CI keeps it apart from what `./dumont` installs), else from .venv.
tools := env("DUMONT_TOOLS", if path_exists(".venv-check/bin/python") == "true" { ".venv-check/bin" } else { ".venv/bin" })
python := tools / "python"
compile := tools / "uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q"

_list:
    @{{ just_executable() }} --justfile {{ quote(justfile()) }} --list --unsorted

# start NATS, PostgreSQL and every service on this machine; prints URLs and an API key
[group('run')]
up *ARGS:
    ./dumont up {{ ARGS }}

# lose the machine of an instance in every way there is, and prove its files
[group('run')]
demo *ARGS:
    ./dumont demo {{ ARGS }}

# print events as they happen
[group('run')]
events *ARGS:
    ./dumont events tail {{ ARGS }}

# drop a service's tables and replay them from the event log while reads go on
[group('run')]
rebuild SERVICE:
    ./dumont rebuild {{ SERVICE }}

# everything that needs no server: format, lint, types, borders, contracts, tidy, dead code
[group('check')]
check: has-tools format-check lint types borders contracts-check tidy dead-code

# install what `check` and `format` run into .venv-check, as CI does (once, and when its lock changes)
[group('check')]
tools:
    .ci/run tools

[private]
has-tools:
    @test -x {{ tools }}/ruff || { echo 'The check tools are not installed yet: .venv/bin/just tools' >&2; exit 1; }

# all tests, on embedded servers
[group('check')]
[positional-arguments]
test *ARGS:
    {{ python }} -m pytest "$@"

# the tests whose name contains NAME, first failure stops
[group('check')]
test-one NAME *ARGS:
    {{ python }} -m pytest -x -k {{ quote(NAME) }} {{ ARGS }}

# run all services in one process on a faulty log; the same SEED gives the same run. `market`: a month on spot machines
[group('check')]
[positional-arguments]
sim SEED *ARGS:
    @shift; exec {{ python }} -m {{ if SEED == "market" { "tests.sim.market" } else { "tests.sim " + SEED } }} "$@"

# seven days of 1,000 accounts and 10,000 instances against a closed form, to the micro-unit (some minutes)
[group('check')]
ledger *ARGS:
    {{ python }} -m tests.sim.ledger {{ ARGS }}

# a million random transfers beside a model; all accounts sum to zero after each (some minutes)
[group('check')]
transfers *ARGS:
    {{ python }} -m tests.sim.transfers {{ ARGS }}

# kill -9 everything at random while customers work (200 commands, some minutes); then look for anything lost or doubled
[group('check')]
chaos *ARGS:
    {{ python }} -m tests.journey.chaos {{ ARGS }}

# kill -9 dispatcher, nats-server and postgres during 20,000 webhook deliveries to receivers that fail (two minutes)
[group('check')]
deliveries *ARGS:
    {{ python }} -m tests.journey.deliveries {{ ARGS }}

# one account's webhook receiver hangs under ten times the traffic: what the others' p99 is (two minutes)
[group('check')]
fairness *ARGS:
    {{ python }} -m tests.journey.fairness {{ ARGS }}

# take the machines of 1,000 instances away at once (virtual sandbox; a minute); then look for anything answered twice
[group('check')]
storm *ARGS:
    {{ python }} -m tests.journey.storm {{ ARGS }}

# kill -9 each service, server and agent at each phase of each way through a loss (158 rounds, 16 minutes; --way NAME)
[group('check')]
phases *ARGS:
    {{ python }} -m tests.journey.phases {{ ARGS }}

# take machines at random instants while 2,000 files change; the CPU standby's copy is judged (two minutes; --interval-s 30)
[group('check')]
prefix *ARGS:
    {{ python }} -m tests.journey.prefix {{ ARGS }}

# ask for what others have and for what nobody has, a thousand times each: the time of an answer must not tell
[group('check')]
existence *ARGS:
    {{ python }} -m tests.journey.existence {{ ARGS }}

# measure product and ceiling side by side (docs/performance.md)
[group('check')]
bench *ARGS:
    {{ python }} -m tests.bench {{ ARGS }}

# format the tree and repair what ruff can repair
[group('check')]
format: has-tools
    {{ tools }}/ruff format .
    {{ tools }}/ruff check --fix .

[private]
format-check:
    {{ tools }}/ruff format --check .

[private]
lint:
    {{ tools }}/ruff check .

[private]
types:
    {{ tools }}/basedpyright --pythonpath {{ python }}

[private]
borders:
    {{ tools }}/lint-imports --no-logo

[private]
contracts-check:
    {{ python }} -m services.contracts --check

# style and architecture as tests, plus the golden events (seconds, no server)
[group('check')]
tidy:
    {{ python }} -m pytest tests/tidy tests/contract

[private]
dead-code:
    {{ tools }}/vulture

# rewrite proto/generated, docs/events.md and deploy/env.md from the code
[group('write')]
contracts:
    {{ python }} -m services.contracts

# write the golden file of a new event, by wire name (an existing one is never changed)
[group('write')]
golden NAME:
    {{ python }} -m services.contracts --golden {{ quote(NAME) }}

# start a decision record with the next free number
[group('write')]
adr TITLE:
    #!/bin/sh
    set -eu
    title={{ quote(TITLE) }}
    last=$(ls docs/adr | sed -n 's/^\([0-9]\{4\}\)-.*/\1/p' | sort | tail -1)
    number=$(printf '%04d' $(( $(echo "$last" | sed 's/^0*//') + 1 )))
    slug=$(printf '%s' "$title" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9]\{1,\}/-/g; s/^-//; s/-$//')
    file="docs/adr/$number-$slug.md"
    sed -e "s/NUMBER/$number/; s/DATE/$(date -u +%F)/" -e "1s|TITLE|$title|" docs/adr/template.md > "$file"
    echo "wrote $file; fill it in, then: just contracts"

# resolve the locked versions anew, with hashes and without naming an index
[group('write')]
lock:
    {{ compile }} --extra test -o requirements.lock
    {{ compile }} --extra test --extra check -c requirements.lock -o .ci/requirements.lock
