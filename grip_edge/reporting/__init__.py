"""What is made of a latency report (``grip_edge.report``): the verdict in words, the page to look at, comparisons.

    accuracy     what the bundle's scorer was found to be worth at each measured budget
    ceilings     the least time that the machine's rates allow each stage
    verdict      the report in sentences
    chart, plots, html    one self-contained page
    samples      raw samples as JSON lines
    comparison, bootstrap    two reports: ratios with intervals, conditions that must agree
    schema       the JSON schema of the report

Needs numpy alone. Not here: measuring (``runtime.bench``), terminal, Markdown and CSV (``report_formats``).
"""
