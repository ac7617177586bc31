"""The commands of generate.py, one module each; what they share is in options.py, the work itself a folder up."""

from training.sampling.commands.attention import attention
from training.sampling.commands.bench import bench
from training.sampling.commands.count import count
from training.sampling.commands.directions import directions
from training.sampling.commands.explore import explore
from training.sampling.commands.grid import grid
from training.sampling.commands.mix import mix
from training.sampling.commands.project import project
from training.sampling.commands.walk import walk

COMMANDS = (grid, mix, walk, attention, directions, project, count, bench, explore)
