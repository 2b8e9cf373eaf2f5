class BoxEvaluation:
    def __init__(self, labels, find, threshold, temperature):
        pass
