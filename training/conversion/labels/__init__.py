"""Labels of a data set in the making: label files, which label belongs to which picture, what labels may be."""
