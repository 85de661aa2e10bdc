"""nbgrader's settings for the labs. Run nbgrader in this folder, in the environment in which favor_lab is installed."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "favor_lab"
c.ClearSolutions.code_stub = {"python": '# YOUR CODE HERE\nraise NotImplementedError("this exercise is empty")'}
# A policy loads and trains in some cells; nbgrader's default of 30 seconds is for smaller ones.
c.ExecutePreprocessor.timeout = 600
