"""What a program needs that talks to Talker: readers of its streams. Nothing here needs torch.

from talker_client.codec import decode

with open("head.codes", "rb") as file:
    for frame in decode(file, "codec").frames: …
"""
