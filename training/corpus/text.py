"""English sentences to be spoken: templates filled with words, written for this project and in nobody's copyright.

The words are chosen so that every sound of English is common, and so that p, b, m, f, v and the rounded vowels, which
show most on a face, come at the start, in the middle and at the end of words.
"""

import random
import re
from collections.abc import Iterator

WORDS: dict[str, list[str]] = {
    kind: words.split()
    for kind, words in {
        "noun": """
            apple baby bag balloon barn basket bath beach bear bell belt bike bird blanket boat bone book boot bottle
            box boy branch bread bridge brother bubble bucket bush button cab cabbage cake camel candle cap card carpet
            castle chair chapel cheese cherry chief child church clock cloth cloud club coat coffee coin comb cook cow
            crib cup cushion daisy desk diver doctor dog dolphin door drum duck elephant engine farm father feather
            fence fiddle film finger fish flag flame flower fly foot forest fork fox frog garage garden gift giant girl
            glove goat goose grape guitar gym hammer harp hat helmet hive hook horse house jacket jam jar jewel judge
            jug kettle king kitchen kite knife ladder lamb lamp leaf lemon letter library lip loaf magnet map market
            match measure melon mirror mitten moon moth mother motor mountain mouse mouth movie mud mug mushroom music
            napkin neighbor nest noise nurse oven owl oyster page paint pan paper park path pebble pen pepper phone
            photo piano picture pie pillow pipe pirate plum pocket poem point pool pot prize puddle pump pumpkin pup
            puppet rabbit radio ramp ribbon ring river road robe robin rock roof rope rose rug sailor scarf school shape
            sheep shelf shepherd ship shirt shoe shop shovel singer sink snake soap sofa song soup spoon spring stamp
            star station stone storm stove straw street swing table teacher teapot television theme thief thread thumb
            thunder tiger tooth toothbrush tower town toy train treasure tree tribe tube van vase vegetable velvet
            village vine violin vision voice volcano wagon wall watch wave web whale wheel whistle wife wind window wing
            wolf woman wood wool worm yacht yard yolk youth zebra zipper zoo
            """,
        "plural": """
            bees beavers boots boys bubbles buttons caves chimps clams cliffs clouds coins cups feathers films flowers
            geese gloves grapes hives jewels judges lambs leaves maps mice moths movies muffins paths pebbles peppers
            pipes puppies ribbons robes ropes shapes sheep ships shoes songs stamps taps thumbs toys tribes tubes waves
            webs whales wolves women zebras
            """,
        "name": """
            Amy Barbara Ben Beth Bob Boyd Dave Dorothy Emma Fay George Gemma Hugh Ivy Jim Joy Judy Leo Louise Luke Mark
            Matthew Maya Molly Olive Pam Paul Pete Phoebe Philip Robin Ruth Sam Sophie Steve Thelma Toby Tom Vic Victor
            Vivian Wendy Yasmin Zoe
            """,
        "adjective": """
            amber blue bold brave brief broad brown calm cheap cheerful clever cool cozy damp deaf deep dumb dusty empty
            enormous fair faint famous five foggy four foolish fresh full funny fuzzy genuine good grey gloomy happy
            heavy huge jolly joyful large lazy little loud lovely lumpy marvelous massive mild modern muddy narrow noisy
            northern odd oval pale patient perfect pink plain pleasant plump poor pretty proud public puffy purple quick
            quiet rough royal rude safe sharp sheer short shy simple sleepy slim smooth soft spoiled square strange
            stubborn stuffy suitable sweet swift thick thin tiny tough unusual useful vague vast velvety vivid warm weak
            weird white whole wild wooden woolen wrong yellow young
            """,
        "past": """
            adored bought broke brought built caught chewed chose covered described dropped enjoyed fetched filled fixed
            followed forgot found gave grabbed heard held helped hid hugged jammed juggled kept kicked left lifted liked
            loved made measured missed moved noticed opened paid painted peeled picked pleased pulled pushed put refused
            removed robbed rubbed saved sewed shaped shared shoved showed spoiled stopped surprised swapped threw took
            touched used viewed visited waved wiped wrapped
            """,
        "base": """
            bake believe borrow bring brush build buy carry change check choose climb cook cover describe draw drive
            enjoy feed find fix follow forgive grab have hear help hide join judge keep leave lift love measure move
            name notice open paint pass phone photograph pick pull push put remember remove repair rob save share show
            stop swap teach throw touch use view visit wash watch wave wipe wrap
            """,
        "went": """
            barked beamed bounced climbed coughed cried crept danced dived dreamed fell flew frowned giggled hiked
            hopped jogged joked jumped laughed limped lived marched moaned moved mumbled napped paused played popped
            prayed ran roamed sang shivered slept slipped smiled sobbed stood stumbled swam thought tripped voyaged
            waited walked waved wept whispered yawned yelled
            """,
        "adverb": """
            above again always away beautifully bravely briefly calmly carefully eventually finally forever gently
            happily hopefully improperly loudly maybe mostly never often perfectly politely possibly probably proudly
            quickly quietly roughly seldom slowly smoothly softly sometimes suddenly thoughtfully together usually
            vaguely warmly
            """,
        "place": """
            above below behind before beneath beside beyond by from inside near opposite outside over past under with
            """,
        "digit": "one two three four five six seven eight nine",
        "number": """
            two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
            eighteen nineteen
            """,
        "tens": "twenty thirty forty fifty sixty seventy eighty ninety",
        "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "month": "January February March April May June July August September October November December",
    }.items()
}

TEMPLATES = """
The {adjective} {noun} {past} the {noun}.
The {noun} and the {noun} {went} {place} the {adjective} {noun}.
{name} {past} a {adjective} {noun} {place} the {noun}.
{name} {went} {adverb}, and the {plural} {went} too.
My {noun} {went} {place} your {noun}.
Tonight, why would {name} {base} the {adjective} {plural}?
Will you {base} the {noun}, or shall we {base} it?
Did {name} {base} {number} {plural} on {day}?
Have you seen the {noun} {place} the {noun}?
Please {base} the {noun}, {name}.
Before we {base} the {plural}, {name} must {base} the {noun}.
If you {base} the {noun}, they will {base} your {adjective} {noun}.
We {past} {number} {plural}, {number} {plural} and a {noun}.
There were {tens} {digit} {plural} {place} the {noun}.
It is {number} past {digit}, and the {noun} is {adjective}.
In {month}, the {plural} were {adjective} and {adjective}.
From {month} to {month}, {name} and {name} {past} the {plural}.
Her {noun} is {adjective}, but his {noun} is {adverb} {adjective}.
"Who {past} the {noun}?" {name} asked {adverb}.
She {past} it, he {past} it, and they all {past} it {adverb}.
I think that the {noun} was {adjective}, though {name} said it was {adjective}.
How many {plural} could {name} {base} with {number} {adjective} {plural}?
{adverb} the {adjective} {plural} {went} {place} the {noun}.
Oh, what a {adjective} {noun}!
No, the other {noun}.
Yes, {name}, {number} {plural}.
{adjective} {plural}, {adjective} {noun}.
{name}? {name}!
{number}, {number}, {number}.
The number is {digit} {digit} {digit}, {digit} {digit} {digit} {digit}.
That is {tens} {digit} thousand, {digit} hundred and {tens} {digit}.
Thank you, {name}, see you on {day}, or tomorrow.
Pam and Bob both {past} the {noun}, {adverb}.
Few of us {base} five very {adjective} {plural} above the {noun}.
Usually we measure the {noun} for pleasure, not for treasure.
The boys enjoyed the noise of the {noun}, and the {noun} {went}.
Look, a good cook would put wood {place} the {noun}.
How now, said the {adjective} cow, and bowed {place} the {noun}.
You knew who threw two blue shoes to {name}.
Go home slowly, {name}, so nobody will know.
""".strip().splitlines()

FIXED = """
Mama.
Papa.
Bye bye.
Hello.
Good morning.
Good evening, everybody.
How are you?
Maybe.
Yes.
No.
Oh, wow!
Hmm, I see.
Never mind.
Five by five.
What time is it?
Excuse me, please.
Thank you very much.
I beg your pardon?
Pop the bubble, Bob.
My mother may move my map.
Baby beavers build big brown barns.
Move over, I love the view from above.
Phil found five fat frogs in a foggy field.
People may pay more for a place by the pump.
Both of them bathed with the other brother.
We will wait for the wind, and then the whale will wave.
A cheap pup chewed the chief's chop.
Is it usual to wear beige in the garage?
The youth used a huge yellow yo yo, you know.
Joy employed a royal boy to boil the oysters.
A loud mouse found a brown house down south.
Hope and home, robe and rope, foam and loaf.
A lamb, a lamp, a limb, a limp.
Rub, rob, rib. Cup, cap, cape. Move, prove, love.
Stop! Stop it, I said.
Wait, wait, let me think about it.
""".strip().splitlines()


def sentences(seed: int) -> Iterator[str]:
    """Sentences without end, the same for the same seed; one in twelve is of FIXED."""
    rng = random.Random(seed)
    while True:
        yield rng.choice(FIXED) if rng.random() < 1 / 12 else _fill(rng.choice(TEMPLATES), rng)


def _fill(template: str, rng: random.Random) -> str:
    """The template with a word of the right kind in every brace, `an` where it is wanted, and a capital letter."""
    text = re.sub(r"\{(\w+)\}", lambda brace: rng.choice(WORDS[brace[1]]), template)
    text = re.sub(r"\b(a) (?=[aeio]|u[nmp])", r"\1n ", text)
    return text[0].upper() + text[1:]
