"""From a recipe to a model: settings (`recipe`), models (`models`), data (`sources`, `data`), what is learned
(`objectives`), and the loop."""
