"""What runs a function that is not hosted here. Every target keeps the promises of `ports.Target`."""
