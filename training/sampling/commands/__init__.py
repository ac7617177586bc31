"""The commands of generate.py, one module each; what they share is in options.py, the work itself a folder up."""

from training.visualize.commands.attention import attention
from training.visualize.commands.bench import bench
from training.visualize.commands.count import count
from training.visualize.commands.explore import explore
from training.visualize.commands.grid import grid
from training.visualize.commands.mix import mix
from training.visualize.commands.project import project
from training.visualize.commands.walk import walk

COMMANDS = (grid, mix, walk, attention, project, count, bench, explore)
