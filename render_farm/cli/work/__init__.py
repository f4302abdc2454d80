"""What the commands do. Heavy to import, unlike their flags: `command` does so when it is known what is asked for.

dispatch   from flags to what they ask for       sources     flags of a source -> a batch of tasks
objects, farming, looking, again, adopting       progress    bars, and lines in a log
           as the files of flags                 wording     numbers as people read them
"""
