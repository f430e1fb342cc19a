"""Workers that are killed and suspended, and a database that goes away: nothing may be lost."""
