"""What a process does now and then by itself: settle abandoned calls, delete what expired, tell people.

Every node does all of it; what may be done only once is decided by the database. A job that fails is done again in the
next round. Nothing here is on the way of a call.
"""
