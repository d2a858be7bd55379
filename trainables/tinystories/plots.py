"""The words and plots of the made-up stories. `{hero}` and its like are filled in by `stories`."""

from __future__ import annotations

from dataclasses import dataclass


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


GIRLS = _list("Lily Mia Anna Sue Emma Lucy Zoe Ella Ruby Nora Ivy Rose Amy Jane Kate Molly Daisy Grace Holly Penny")
BOYS = _list("Tom Ben Max Sam Tim Jack Leo Finn Oscar Noah Bob Dan Hugo Luke Peter Theo Adam Henry Charlie Will")

WORDS: dict[str, tuple[str, ...]] = {
    "kind": ("little", "small", "young", "kind", "clever", "brave", "quiet", "cheerful"),
    "thing": _list(
        "ball kite doll boat drum hat book car cup bell puzzle robot scarf lamp truck top train whistle mirror "
        "blanket bucket ring flute puppet"
    ),
    "colour": _list("red blue green yellow purple black pink white brown silver"),
    "size": _list("big small tiny long round strange new shiny soft heavy"),
    "place": (
        "the park",
        "the garden",
        "the forest",
        "the school",
        "the beach",
        "the farm",
        "the market",
        "the zoo",
        "the river",
        "the hill",
        "the library",
        "the playground",
        "the lake",
        "the meadow",
    ),
    "hiding": (
        "under a bench",
        "behind a tree",
        "in a bush",
        "next to a rock",
        "under some leaves",
        "in a box",
        "behind a wall",
        "in the tall grass",
        "on a step",
        "inside an old boot",
    ),
    "animal": _list("dog cat bird rabbit frog duck squirrel mouse turtle pony goat hen fox lamb"),
    "food": _list("apples cookies berries carrots nuts cakes plums pears grapes eggs"),
    "weather": (
        "The sun was warm",
        "It was a cloudy day",
        "The wind was strong",
        "There was snow on the ground",
        "The sky was blue",
        "It was early in the morning",
        "It was a hot day",
        "The birds were singing",
    ),
    "sad": ("sad", "upset", "worried", "angry", "lonely", "scared"),
    "glad": ("happy", "glad", "proud", "thankful", "excited", "calm"),
    "relative": ("mom", "dad", "grandma", "grandpa", "sister", "brother", "aunt", "uncle"),
    "noise": ("a loud bang", "a soft scratch", "a strange song", "a long howl", "a tap at the window", "a big splash"),
    "animal_name": _list("Pip Coco Bobo Fluffy Spot Nibbles Sunny Pepper"),
    "job": ("painting", "digging", "cooking", "sweeping", "fishing", "sewing", "reading", "building a tower"),
}
"""What is drawn once for a story, at its first use, and stays."""

NUMBERS = _list("zero one two three four five six seven eight nine ten")

OPENINGS = (
    "Once upon a time, there was a {kind} {child} named {hero}. {weather}.",
    "One day, a {kind} {child} named {hero} went to {place}. {weather}.",
    "{hero} was a {kind} {child}. {He} loved to play at {place}.",
    "{weather}, and {hero} wanted to play. {He} was a {kind} {child}.",
    "There once was a {kind} {child} who lived near {place}. {His} name was {hero}.",
    "In a house near {place} lived a {kind} {child} named {hero}.",
)


@dataclass(frozen=True)
class Plot:
    """What happens, step by step; each step is told in one of several ways."""

    steps: tuple[tuple[str, ...], ...]


LOST = Plot(
    (
        (
            "{He} had a {size} {colour} {thing} and took it everywhere.",
            "{His} best toy was a {size} {colour} {thing}.",
            "{His} {relative} had given {him} a {size} {colour} {thing}.",
        ),
        (
            "But at {place} the {thing} was gone!",
            'One day {he} looked in {his} bag. "Where is my {thing}?" {he} asked.',
            "When {he} came home from {place}, {he} could not find the {thing}.",
        ),
        (
            "{hero} was very {sad}. {He} looked everywhere.",
            "{He} felt {sad} and began to cry.",
            "{He} was {sad}, but {he} did not give up.",
        ),
        (
            'Then {he} met {friend}. "Have you seen my {colour} {thing}?" asked {hero}.',
            '{friend} came by. "Why are you {sad}?" {fhe} asked. "I lost my {thing}," said {hero}.',
            '{He} called {friend}. "Please help me find my {size} {thing}," {he} said.',
        ),
        (
            '"Yes," said {friend}. "I saw a {colour} {thing} {hiding}."',
            "{friend} looked too, and found the {size} {colour} {thing} {hiding}.",
            "Together {hero} and {friend} looked {hiding}. There was the {thing}!",
        ),
        (
            '"Thank you, {friend}!" said {hero}. {He} was {glad} again.',
            "{hero} hugged {friend}. Both of them felt {glad}.",
            "{hero} was so {glad} that {he} let {friend} play with the {thing}.",
        ),
    )
)

SHARING = Plot(
    (
        (
            "{hero} had {n} {food} in a {colour} bag.",
            "{His} {relative} gave {him} {n} {food}.",
            "{He} went out and picked {n} {food} near {place}.",
        ),
        (
            "{friend} had no {food} and was {sad}.",
            "Then {he} saw {friend}, who was hungry and {sad}.",
            '{friend} asked, "May I have some of your {food}?"',
        ),
        (
            "{hero} thought about it. Then {he} gave {friend} {m} of them.",
            '"Here are {m} for you," said {hero}.',
            "{hero} put {m} {food} into {fhis} hand.",
        ),
        (
            "Now {hero} had {left} {food} and {friend} had {m}.",
            "{friend} had {m} {food} now, and {hero} had {left} left.",
            'They counted. "I gave you {m}, so I have {left}," said {hero}.',
        ),
        (
            "They sat down {hiding} and ate. Both were {glad}.",
            '"You are a good friend," said {friend}. {FHe} was {glad}.',
            "{friend} was {glad} and gave {hero} a {colour} {thing} to say thank you.",
        ),
    )
)

ANIMAL = Plot(
    (
        (
            "At {place} {he} heard a {animal}. It was stuck {hiding}.",
            "{He} saw a {size} {animal} {hiding}. It looked {sad}.",
            "A {colour} {animal} sat {hiding} and could not get out.",
        ),
        (
            '"Do not be {sad}, little {animal}," said {hero}. "I will help you."',
            '"Please help me," said the {animal}. {hero} wanted to help.',
            "{hero} was not afraid of the {animal}. {He} came near.",
        ),
        (
            "{He} pulled and pulled, but {he} was not strong enough.",
            "{He} tried, but the {animal} was too heavy.",
            "{He} could not do it alone, so {he} ran to find {friend}.",
        ),
        (
            "{friend} came with a {size} {thing}. They used it to help the {animal}.",
            '"I have an idea," said {friend}. {FHe} took {fhis} {thing} and helped.',
            "Then {friend} came too. {hero} and {friend} pulled together.",
        ),
        (
            "At last the {animal} was free. It was very {glad}.",
            "The {animal} jumped out and ran around {hero} and {friend}.",
            'The {animal} was free! "Thank you, {hero}. Thank you, {friend}," it said.',
        ),
        (
            "From then on the {animal} came to {place} every day to see {hero}.",
            "{hero} named the {animal} {animal_name} and took it home.",
            "They gave the {animal} some {food}, and it ate them all.",
        ),
    )
)

BROKEN = Plot(
    (
        (
            "{friend} had a {size} {colour} {thing}. {hero} wanted to play with it.",
            "One day {hero} saw the {colour} {thing} of {friend} {hiding}.",
            '"Look at my {size} {thing}," said {friend}. "Be careful with it."',
        ),
        (
            "{hero} ran too fast, and the {thing} fell down and broke.",
            "{hero} played with the {thing}. Then {he} dropped it. Oh no!",
            "But {hero} was not careful, and the {thing} broke.",
        ),
        (
            "{hero} was {sad}. {He} hid the {thing} {hiding}.",
            '"What should I do?" thought {hero}. {He} felt {sad}.',
            "{He} wanted to run away from {place}, but {he} did not.",
        ),
        (
            'Then {he} told the truth. "I broke your {thing}," {he} said. "I am sorry."',
            '{hero} went to {friend} and said, "I am sorry. I broke your {colour} {thing}."',
            '{His} {relative} said, "You must tell {friend}." So {hero} did.',
        ),
        (
            '"It is okay," said {friend}. "We can fix the {thing} together."',
            "{friend} was {sad} at first. But then {fhe} smiled and took some glue.",
            "{friend} was not angry. {FHe} asked {fhis} {relative} to fix the {thing}.",
        ),
        (
            "Soon the {thing} was as good as new, and they were {glad}.",
            "They fixed the {size} {thing}. {hero} was {glad} that {he} had told the truth.",
            "When the {thing} was fixed, {hero} and {friend} played until it was dark.",
        ),
    )
)

NOISE = Plot(
    (
        (
            "One night {he} heard {noise}. {He} sat up in {his} bed.",
            "When {he} was at {place}, there was {noise}. {hero} stopped.",
            "It was dark. Suddenly there was {noise}!",
        ),
        (
            "{hero} was {sad} and held {his} {thing}.",
            '"What was that?" {he} asked. {He} felt {sad}.',
            "{He} took {his} {colour} {thing} and hid {hiding}.",
        ),
        (
            '"Do not worry," said {his} {relative}. "We will look together."',
            "{His} {relative} came and took {his} hand.",
            'Then {he} said, "I am brave. I will go and look."',
        ),
        (
            "They looked {hiding}. It was only a {animal}!",
            "And what was it? A {size} {animal} sat {hiding}.",
            "There, {hiding}, was a {colour} {animal}. It had made {noise}.",
        ),
        (
            "{hero} laughed. {He} was not {sad} any more.",
            'The {animal} looked at {hero}. "Hello, {animal}," {he} said and laughed.',
            "{hero} gave the {animal} some {food} and was {glad}.",
        ),
    )
)

JOB = Plot(
    (
        (
            "{friend} was {job}. {hero} wanted to help.",
            'One day {hero} saw {friend}, who was {job}. "Can I help you?" {he} asked.',
            "{His} {relative} was {job}, and {friend} was {job} too.",
        ),
        (
            '"You are too little," said {friend}.',
            '"It is hard work," said {friend}, "but you can try."',
            '"Yes, please," said {friend}. "Take this {size} {thing}."',
        ),
        (
            "{hero} tried, but it went wrong. {He} felt {sad}.",
            "At first {hero} was slow, and {he} was {sad}.",
            "{He} made a mistake and was {sad}.",
        ),
        (
            'But {he} tried {n} times. "I can do it!" {he} said.',
            "{He} tried again and again. After {n} times {he} could do it.",
            '"Try again," said {friend}. So {hero} tried {n} times more.',
        ),
        (
            "In the end {hero} was as good at {job} as {friend}.",
            '"You are very good at {job} now," said {friend}. {hero} was {glad}.',
            "They had {n} {food} to eat when the work was done, and both were {glad}.",
        ),
    )
)

RAIN = Plot(
    (
        (
            "{hero} and {friend} went to {place} with a {colour} {thing}.",
            "{friend} came to play. They took the {size} {thing} to {place}.",
            '"Let us go to {place}," said {friend}. {hero} took {his} {colour} {thing}.',
        ),
        (
            "They played with the {thing} all morning.",
            "They were {glad} and ran and jumped.",
            "They saw {n} {animal}s there. {m} of them ran away, so there were {left}.",
        ),
        (
            "Then it began to rain. {friend} was {sad}.",
            "But soon there were big drops of rain. The {thing} got wet.",
            'Suddenly it rained. "Oh no," said {hero}.',
        ),
        (
            "They ran and hid {hiding}.",
            '"Quick, {hiding}!" said {hero}. There they waited.',
            "{hero} held {his} coat over {friend} and they went {hiding}.",
        ),
        (
            "They ate {food} and told each other stories until the rain stopped.",
            "After a while the sun came back, and {friend} was {glad}.",
            'When the rain stopped there was a rainbow. "It is {colour}!" said {friend}.',
        ),
        (
            "{hero} and {friend} went home. It had been a good day at {place}.",
            "They took the {size} {thing} and went home to {his} {relative}.",
            '"We will come back," said {hero} and {friend}.',
        ),
    )
)

PLOTS = (LOST, SHARING, ANIMAL, BROKEN, NOISE, JOB, RAIN)

ENDINGS = (
    "The end.",
    "And {hero} never forgot that day.",
    "They lived happily ever after.",
    "That night {hero} slept well.",
    "And that is how {hero} learned to be {virtue}.",
)

VIRTUES = {
    LOST: "patient",
    SHARING: "generous",
    ANIMAL: "helpful",
    BROKEN: "honest",
    NOISE: "brave",
    JOB: "hard-working",
    RAIN: "cheerful",
}
"""What a hero learns from each plot."""
