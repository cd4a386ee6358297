"""What `headstart bench` measures: quality for each network call, speed and energy; each leaves a file, and one page
is made of them."""
