"""What is learned: one module a recipe, each with `build(start) -> Task`; `build.make_task` finds them."""
