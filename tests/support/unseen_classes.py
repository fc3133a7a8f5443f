"""Unseen classes of the published splits, written down by hand: what tests hold the committed tables against."""
UNSEEN = {
    ("sketchy", "1"): "airplane, bell, butterfly, camel, chicken, cup, deer, harp, horse, parrot, pineapple, "
                      "ray, rifle, scissors, snail, squirrel, swan, tank, teddy_bear, tree, umbrella, "
                      "volcano, wheelchair, windmill, wine_bottle",
    ("sketchy", "2"): "bat, cabin, cow, dolphin, door, giraffe, helicopter, mouse, pear, raccoon, "
                      "rhinoceros, saw, scissors, seagull, skyscraper, songbird, sword, tree, wheelchair, "
                      "windmill, window",
    ("tuberlin", "1"): "ant, banana, bottle opener, brain, bread, bridge, bus, canoe, fan, frying-pan, "
                       "horse, hot air balloon, laptop, lighter, parachute, penguin, pizza, rollerblades, "
                       "shoe, snowboard, space shuttle, streetlight, suitcase, t-shirt, table, teacup, "
                       "telephone, tractor, trombone, windmill",
    ("quickdraw", "1"): "bat, cow, dolphin, door, giraffe, helicopter, mouse, raccoon, rhinoceros, saw, "
                        "scissors, skyscraper, tree, windmill, feather, campfire, palm tree, fire_hydrant, "
                        "bread, beach, megaphone, cactus, zebra, tiger, shark, frog, banana, cake, "
                         "hamburger, fan",
}
