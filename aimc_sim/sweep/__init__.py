"""Monte-Carlo campaigns: tasks named by what they compute, resumable, local or on a cluster.

>>> import aimc_sim as aimc
>>> campaign = aimc.sweep.Campaign.grid("math:pow", {"base": [2, 3]}, outputs={"power": "1"})
>>> len(campaign.tasks)
2
"""

from aimc_sim.sweep.campaign import Axis, Campaign
from aimc_sim.sweep.engine import Progress, run
from aimc_sim.sweep.tasks import Task

__all__ = ["Axis", "Campaign", "Progress", "Task", "run"]
