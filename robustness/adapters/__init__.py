"""Adapters: this project's purifier in other libraries' attacks, and anyone's network among this project's victims."""
