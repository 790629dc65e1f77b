from zhao import *
x,y,xt,yt=data('/tmp/mn/mnist.npz',64)
sd=torch.load('/tmp/dev3/float64.pt',map_location='cpu')
sd={k:v[:1] for k,v in sd.items()}
net=Trainable(fresh(64,64,1,'none',range(1)))
net.load_state_dict(sd)
q=Trainable(net.start,Precision(a=8,c=4,d=4,mix=4,enc=4,dec=4,state=8,act=6))
load_state(net,q); q.calibrate(x[:16])
out=q(x[:8]); loss=F.cross_entropy(out.flatten(0,1),y[:8]); loss.backward()
print(loss.item())
for n,p in q.named_parameters():
    print(n,tuple(p.shape),None if p.grad is None else (p.grad.norm().item(),p.abs().max().item()))
