"""`sponge demo`: one load served by four strategies on this machine, measured and shown side by side.

No strategy is implemented here: each is a way to start `local`'s service. It may import all other packages but the controller.
"""
