"""The dataset: profiles, the coach policy that labels them, and the files made of them."""
