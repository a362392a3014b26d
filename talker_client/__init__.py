"""What a program needs that talks to Talker: a client, and readers of its streams. Nothing here needs torch.

from talker_client.client import Talker

with Talker("http://127.0.0.1:8000") as talker:
    talker.animate("speech.wav").save("head.glb")
"""
