"""Many runs of a recipe: points to programs, what they cost, how they rank; programs compiled elsewhere.

In: a recipe and a generator of points beside it. Out: a plan (which points share a program), runs that resume, and a
leaderboard on the development split. Only launchers and recipes import it.
"""
