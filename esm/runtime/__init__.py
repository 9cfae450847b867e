"""Who runs, and when it stops. Loops ask a rule, act, and report; anyio only, so that they run on a virtual clock."""
