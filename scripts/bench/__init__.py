"""The benchmark: the relay beside nginx, and beside other gateways where they are installed, in one run.

``python -m scripts.bench`` measures, prints, and writes ``docs/benchmarks.md``. A measurement is a module with a
``run(report, plan)``; ``report`` keeps tables and figures, ``goals`` judges the figures, ``page`` writes them down.
"""
