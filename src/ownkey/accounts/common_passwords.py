"""Long passwords that are guessed first.

Lists of common passwords hold almost nothing of 15 characters or more; these are the stems of the ones they do hold,
and sayings and songs that people take for a long password. Lower case, without spaces, dots, hyphens and underscores,
and without the digits that people put behind.
"""

from __future__ import annotations

_STEMS = """
1q2w3e4r5t6y7u8i 1q2w3e4r5t6y7u8i9o 1q2w3e4r5t6y7u8i9o0p 1qaz2wsx3edc4rfv 1qaz2wsx3edc4rfv5tgb 1qazxsw23edcvfr4
qazwsxedcrfvtgb qazwsxedcrfvtgbyhn qwertyuiop qwerty asdfghjkl zxcvbnm abcd a1b2c3d4e5f6g7h8 q1w2e3r4t5y6u7i8
123456789qwerty 1234567890qwerty 123456789qwertyuiop 1234567890qwertyuiop 123456789abcdef 1234567890abcdef
password passwordpassword password123password passw0rd passw0rdpassw0rd p@ssw0rd p@ssw0rdp@ssw0rd mypassword
mypasswordis mypasswordismine mypasswordispassword thisismypassword thisisapassword thisisnotapassword thisismysecret
thisisasecret thisisaverylongpassword iforgotmypassword ihatepasswords averylongpassword verylongpassword
superlongpassword mylongpassword longpassword strongpassword securepassword supersecretpassword supersecret
secretpassword correcthorsebatterystaple correcthorsebattery changeme changemeplease pleasechangeme letmein
pleaseletmein letmeinplease opensesame admin administrator root user guest welcome welcomehome welcometothejungle
welcometomyworld iloveyou iloveyouforever iloveyousomuch iloveyouverymuch iloveyoubaby iloveyou3000iloveyou
iloveyoutothemoonandback ilovemyfamily ilovemymother ilovejesuschrist jesuschristislord jesusismysavior jesuslovesme
godisgoodallthetime thelordismyshepherd inthebeginning tobeornottobe tobeornottobethatisthequestion
maytheforcebewithyou lukeiamyourfather winteriscoming youshallnotpass oneringtorulethemall alohomora harrypotter
hermionegranger avadakedavra supercalifragilisticexpialidocious antidisestablishmentarianism thequickbrownfox
thequickbrownfoxjumpsoverthelazydog loremipsumdolor loremipsumdolorsitamet helloworld hello whatever
nevergonnagiveyouup bohemianrhapsody stairwaytoheaven smellsliketeenspirit livinonaprayer happybirthdaytoyou
twinkletwinklelittlestar letitbe dontworrybehappy hakunamatata carpediem manchesterunited manchestercity liverpoolfc
realmadridfc barcelonafc youllneverwalkalone dallascowboys newyorkyankees unitedstatesofamerica godblessamerica
londonengland chocolatechip chocolatecookies peanutbutter peanutbutterjelly sunshine princess football baseball
basketball dragon monkey superman batman supermanbatman batmansuperman spongebobsquarepants pokemon gottacatchemall
minecraft counterstrike callofduty worldofwarcraft test testpassword testing trustno1 trustnoone masterpassword
defaultpassword temporarypassword temppassword newpassword mynewpassword oldpassword companypassword computer internet
whoareyou imthegreatest sayhellotomylittlefriend summer2024summer summer spring winter autumn january february december
onetwothreefour onetwothreefourfive zerocool abracadabra
"""

COMMON_PASSWORDS = frozenset(_STEMS.split())

# A password that is a piece of one of these, in either direction.
KEYBOARD_RUNS = (
    "abcdefghijklmnopqrstuvwxyz" * 2,
    "01234567890" * 4,
    "1234567890" * 4,
    "12345678901234567890abcdefghijklmnopqrstuvwxyz",
    "abcdefghijklmnopqrstuvwxyz12345678901234567890",
    "qwertyuiopasdfghjklzxcvbnm" * 2,
    "qwertyuiop[]asdfghjkl;'zxcvbnm,./",
    "1234567890qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm" * 2,
    "azertyuiopqsdfghjklmwxcvbn" * 2,
    "!@#$%^&*()" * 4,
)
