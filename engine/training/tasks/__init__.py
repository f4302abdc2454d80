"""What is learned: one module a recipe, each with `build(recipe, weights, ...) -> Task`; `build.make_task` finds them."""
