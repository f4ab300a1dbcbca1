"""slurm-gov node: sick nodes, what is done about them, and orders by hand."""

from __future__ import annotations

import click

from slurm_gov.cli import node_orders, node_views


@click.group()
def node() -> None:
    """Sick nodes: how each is, what is done about it, and orders by hand.

    slurm-govd does the work; these commands read what it remembers, and leave orders for it, which it follows
    also if it is started only later. Orders need the right to write the node journal: run them as SlurmUser or root.

    The policy needs a health: section; without it nothing is done to nodes.

    \b
    Examples:
      slurm-gov node list
      slurm-gov node show n3
      slurm-gov node reboot n3 --dry-run
      slurm-gov node clear n3                   it is well: let it work again

    \b
    Exit codes:
      0  shown; an order: done, or with --no-wait ordered
      1  refused, failed, or something cannot be read
      2  wrong usage
    """


for command in (*node_views.COMMANDS, *node_orders.COMMANDS):
    node.add_command(command)
