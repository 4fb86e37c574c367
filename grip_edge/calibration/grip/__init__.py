"""GRIP: supervised warm-up, then GRPO over the discrete selection, on a frozen VLM.

GRIP-VLM publishes the two stages and the budget-aware scorer, not their details; those follow TwigVLM++ (reward,
group, curriculum) and CaCoVID (pre-LLM, text-aware). See docs/log.md.
"""
