package segment

const sysPreadv2 = 327
