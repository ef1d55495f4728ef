raise ValueError("it cannot be imported")
