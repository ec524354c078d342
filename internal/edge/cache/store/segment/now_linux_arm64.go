package segment

const sysPreadv2 = 286
